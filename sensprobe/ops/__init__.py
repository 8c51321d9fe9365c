"""The operations of a state space model: the reference of each, in plain PyTorch."""
