"""The short benchmarks, one after the other; see the modules beside this one for the long ones."""

from benchmarks import score

if __name__ == "__main__":
    score.main()
