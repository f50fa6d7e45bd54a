"""`python -m local.demo`: the product at work between a simulated Partner Center and a simulated Dynamics 365.

`story` says what people do and what must come of it, `world` is how they act and look, `play` runs and judges it.
"""
