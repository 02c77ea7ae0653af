"""What a GPU does: losses, training steps and real shapes. With --quick all of it runs on a CPU too, at small sizes."""
