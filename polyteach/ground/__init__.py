"""What knows no task: geometry, images, files, storage, text, devices; imports nothing from above."""
