"""Forward-Forward: goodness, negative data, and the feed-forward and recurrent rule."""
