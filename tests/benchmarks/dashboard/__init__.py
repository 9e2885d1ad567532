"""What the dashboard costs; see `large_site`."""
