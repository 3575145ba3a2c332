"""Read datasets: list the images of a folder, group and split them, and decode their pixels."""
