"""The short benchmarks, one after the other; the modules beside this one have longer ones."""

from benchmarks import decode, inference, instances, score

if __name__ == "__main__":
    print("\n# Scoring", flush=True)
    score.main([])
    print("\n# Instances", flush=True)
    instances.main(list(instances.SHORT))
    print("\n# Resampling and joint decoding", flush=True)
    decode.main()
    print("\n# Inference", flush=True)
    inference.main(list(inference.SHORT))
