"""What people look at: pictures, charts, films and windows."""
