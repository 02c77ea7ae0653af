"""What tables say of rows that are not finished: runs that go on, and where else there are records."""
