"""Stage 3: preference objectives as pure functions, and the LoRA training that minimises them."""
