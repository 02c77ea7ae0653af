"""The rows that a figure shows: their records, their labels, and the curves of their trainings."""
