"""Running untrusted bytes apart from the rest of a process, and settings for memory."""
