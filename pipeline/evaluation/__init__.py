"""How good a bundle is, beside which baseline: one module per task, arrays in, `Result` out."""
