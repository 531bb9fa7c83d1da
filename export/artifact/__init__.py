"""The artifact folder on disk: its files, origin, model card and upload."""
