"""What people bring their images in, read as class folders: tables, archives, data sets, splits."""
