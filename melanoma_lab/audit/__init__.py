"""What is wrong with a folder of images: duplicates, leaks, contradicting labels."""
