"""Speech recognition with a CTC head."""
