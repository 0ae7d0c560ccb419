"""The command line tools of a compiler developer: ml4f-opt and ml4f-translate."""
