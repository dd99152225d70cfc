"""Forward-Forward: goodness, negative data, the feed-forward and the recurrent rule."""
