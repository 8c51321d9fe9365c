"""Sites, formats, schemes, plans and their costs: names and arithmetic, without a tensor."""
