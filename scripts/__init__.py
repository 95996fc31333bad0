"""What keeps the project's own files up to date."""
