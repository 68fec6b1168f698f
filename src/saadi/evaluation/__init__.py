"""Stage 4: what the synthetic images are worth, on real test images, with honest statistics."""
