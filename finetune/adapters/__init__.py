"""What PEFT attaches, and the methods that need more than attaching."""
