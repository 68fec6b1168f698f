"""Stage 2: the user's downstream model as the judge of synthetic images, cross-fitted by group."""
