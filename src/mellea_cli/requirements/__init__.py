"""What an answer must satisfy."""
