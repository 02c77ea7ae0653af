"""What one id can cover: each pair of conditions tried, and the page that says what came out (docs/identity.md)."""
