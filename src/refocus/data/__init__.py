"""Images, masks and labels from folders; transforms; shifts of background, place, size, angle."""
