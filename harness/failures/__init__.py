"""Why runs fail: classes of failures, the ends of logs. Imports no other room of harness."""
