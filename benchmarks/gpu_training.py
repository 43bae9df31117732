def measure_training(device):
    return {}
