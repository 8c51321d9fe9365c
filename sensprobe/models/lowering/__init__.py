"""The streaming step of every family, written with a builder of programs (`builder.Builder`).

`lower(b, config)` calls the builder's methods in the order of the forward pass and returns the
register of the outputs. The builder knows the model's sites and plan.
"""
