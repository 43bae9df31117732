"""What any program needs: errors, progress, files, YAML, the machine it runs on."""
