//! Writes a first corpus for all fuzzers.

fn main() -> std::io::Result<()> {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (index, (target, bytes)) in klamm_protocol_fuzz::seeds().into_iter().enumerate() {
        let directory = corpus.join(target);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join(format!("golden-{index}")), bytes)?;
    }
    Ok(())
}
