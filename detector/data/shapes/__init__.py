"""The generated data set: images of shapes."""
