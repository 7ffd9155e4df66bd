"""One file per subcommand: plain functions from artefacts and options to an artefact."""
