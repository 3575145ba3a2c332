"""From a folder of images to a split manifest and decoded pixels."""
