"""What is measured of a network and a rule: pure functions of arrays, to be vmapped over seeds."""
