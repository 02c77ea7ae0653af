"""What runs do: here, in the queue, ended. May import planning and what stands right of it."""
