"""ml4f: compiles trained neural networks to Arm Thumb-2 machine code."""
