// The start of every part.
X.startPage();
X.startClusters();
X.startEdges();
X.startHeatmap();
X.startGraph();
X.startCurves();
X.startImage();
X.store = X.readView();
X.change(null);
addEventListener("hashchange", () => { X.store = X.readView(); X.change(null); });
