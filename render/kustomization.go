package render

func checkKustomizations(rec *Recorder, file string) error { return nil }
