"""Model + loss + data -> symmetric operators on flat parameter vectors."""
