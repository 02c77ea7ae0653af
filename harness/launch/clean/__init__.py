"""What a runs folder holds that nobody needs any more. May import what its room may."""
