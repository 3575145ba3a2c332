"""Apply saved networks to images: find the model and the images, predict, write the results."""
