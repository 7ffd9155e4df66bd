"""What the files of a run are called."""

TRACE, TRACE_SHARDS = "trace.safetensors", "trace"
FEATURES, FIT, CIRCUIT = "features.safetensors", "fit.safetensors", "circuit.json"
CAUSAL, TARGET_CAUSAL, INTERVENE = "causal.json", "target_causal.json", "intervene.json"
NUM_CLUSTERS, STABILITY = "num_clusters.json", "stability.json"
GROUPS, GRAPH = "groups.json", "graph.json"
RUN, MANIFEST = "run.json", "manifest.json"
REPORT, EXPLAIN = "report.html", "explain.html"
RESULTS = (
    TRACE,
    FEATURES,
    FIT,
    CIRCUIT,
    CAUSAL,
    TARGET_CAUSAL,
    INTERVENE,
    GRAPH,
    GROUPS,
)
"""What the stages of a run write, in their order."""
OVERVIEW, HEATMAPS = "overview.png", "heatmaps"
MAKER = "xaikit"
"""What pictures and pages say that they were made with."""
