"""What a person looks at: pictures, charts, films and windows."""
