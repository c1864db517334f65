//! The store as a whole: durability of names, verification of reads, resumption of downloads.

use super::*;

const MEBIBYTE: usize = 1 << 20;

fn store() -> (tempfile::TempDir, DiskBlobs) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = DiskBlobs::open(folder.path().join("blobs")).unwrap();
    (folder, blobs)
}

fn blob(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 + i / 1009) as u8).collect()
}

/// Damages one byte of a stored blob, as a failing disk would.
fn rot(blobs: &DiskBlobs, id: &BlobId, position: usize) {
    let path = blobs.folder.blob(id);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[position] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn what_is_put_comes_back_under_its_hash_also_after_a_restart() {
    let (folder, blobs) = store();
    let large = blob(2 * MEBIBYTE + 5);
    let mut ids = vec![
        blobs.put(b"small").unwrap(),
        blobs.put(b"").unwrap(),
        blobs.put(&large).unwrap(),
    ];
    assert_eq!(blobs.put(&large).unwrap(), BlobId::of(&large), "again");
    drop(blobs);

    let blobs = DiskBlobs::open(folder.path().join("blobs")).unwrap();
    assert_eq!(blobs.get(&ids[2]).unwrap(), large);
    assert_eq!(blobs.len(&ids[1]).unwrap(), 0);
    ids.sort();
    assert_eq!(blobs.ids().unwrap(), ids);
    blobs.remove(&ids[0]).unwrap();
    assert!(matches!(blobs.get(&ids[0]), Err(BlobError::Absent { .. })));
}

#[test]
fn an_imported_file_has_the_name_of_its_bytes() {
    let (folder, blobs) = store();
    let path = folder.path().join("update");
    std::fs::write(&path, blob(MEBIBYTE + 1)).unwrap();
    let id = blobs.import(&path).unwrap();
    assert_eq!(id, BlobId::of(&blob(MEBIBYTE + 1)));
    let missing = blobs.import(folder.path().join("nothing")).unwrap_err();
    assert!(missing.to_string().contains("nothing"), "{missing}");
}

#[test]
fn ranges_are_cut_where_asked_and_checked_against_the_blob_s_length() {
    let (_folder, blobs) = store();
    let bytes = blob(3 * MEBIBYTE + 10);
    let id = blobs.put(&bytes).unwrap();
    for range in [0..1, MEBIBYTE - 1..MEBIBYTE + 1, 5..3 * MEBIBYTE + 10, 7..7] {
        let wanted = range.start as u64..range.end as u64;
        assert_eq!(blobs.read_range(&id, wanted).unwrap(), bytes[range]);
    }
    let beyond = blobs.read_range(&id, 0..bytes.len() as u64 + 1);
    assert!(matches!(beyond, Err(BlobError::OutOfRange { .. })));
}

/// What should not happen: rotten bytes being returned, or a rotten blob being offered again.
#[test]
fn bit_rot_is_an_error_and_the_blob_is_set_aside() {
    let (_folder, blobs) = store();
    let small = blobs.put(b"small").unwrap();
    rot(&blobs, &small, 2);
    assert!(matches!(blobs.get(&small), Err(BlobError::Damaged { .. })));
    assert!(!blobs.has(&small));
    assert_eq!(
        blobs.put(b"small").unwrap(),
        small,
        "it may be stored again"
    );
    assert_eq!(blobs.get(&small).unwrap(), b"small");

    let large = blobs.put(&blob(2 * MEBIBYTE)).unwrap();
    rot(&blobs, &large, MEBIBYTE + 3);
    let mebibyte = MEBIBYTE as u64;
    blobs.read_range(&large, 0..mebibyte).unwrap();
    let second = blobs.read_range(&large, mebibyte..2 * mebibyte);
    assert!(matches!(second, Err(BlobError::Damaged { .. })));
    assert!(!blobs.has(&large));
}

#[test]
fn a_cut_file_is_damage_too() {
    let (_folder, blobs) = store();
    let id = blobs.put(&blob(2 * MEBIBYTE)).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(blobs.folder.blob(&id))
        .unwrap();
    file.set_len(MEBIBYTE as u64 + 9).unwrap();
    let read = blobs.read_range(&id, 0..10);
    assert!(matches!(read, Err(BlobError::Damaged { .. })), "{read:?}");
}

#[test]
fn a_lost_or_damaged_outline_is_computed_again() {
    let (_folder, blobs) = store();
    let bytes = blob(2 * MEBIBYTE + 1);
    let id = blobs.put(&bytes).unwrap();
    std::fs::write(blobs.folder.outline(&id), b"rubbish").unwrap();
    assert_eq!(blobs.outline(&id).unwrap(), Outline::of(&bytes));
    std::fs::remove_file(blobs.folder.outline(&id)).unwrap();
    assert_eq!(blobs.outline(&id).unwrap(), Outline::of(&bytes));
}

#[test]
fn a_writer_stores_under_the_promised_name_or_not_at_all() {
    let (folder, blobs) = store();
    let id = BlobId::of(b"hello");
    let mut writer = blobs.writer().unwrap();
    writer.write(b"hel").unwrap();
    assert!(!blobs.has(&id), "nothing is visible before the end");
    writer.write(b"lo").unwrap();
    writer.finish_as(&id).unwrap();
    assert_eq!(blobs.get(&id).unwrap(), b"hello");

    let mut writer = blobs.writer().unwrap();
    writer.write(b"other").unwrap();
    let refused = writer.finish_as(&id).unwrap_err();
    assert!(matches!(refused, BlobError::OtherBytes { named, .. } if named == id));
    assert!(!blobs.has(&BlobId::of(b"other")));
    drop(blobs.writer().unwrap());
    let temporary = folder.path().join("blobs/temporary");
    assert_eq!(std::fs::read_dir(temporary).unwrap().count(), 0);
}

#[test]
fn temporary_files_of_a_crash_are_removed_at_the_next_start() {
    let (folder, blobs) = store();
    drop(blobs);
    let left = folder.path().join("blobs/temporary/17");
    std::fs::write(&left, b"half a blob").unwrap();
    let blobs = DiskBlobs::open(folder.path().join("blobs")).unwrap();
    assert!(!left.exists());
    assert_eq!(blobs.ids().unwrap(), []);
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let (folder, _blobs) = store();
    let second = DiskBlobs::open(folder.path().join("blobs"));
    assert!(matches!(second, Err(BlobError::InUse { .. })));
}

/// What should happen: after a restart exactly the missing mebibytes are asked for again.
/// What should not happen: the blob being visible before the last one is there.
#[test]
fn a_download_resumes_where_it_stopped_and_shows_only_when_complete() {
    let (folder, blobs) = store();
    let bytes = blob(4 * MEBIBYTE + 3);
    let (id, outline) = (BlobId::of(&bytes), Outline::of(&bytes));
    let subtree = |index: usize| {
        let range = outline.range(index);
        &bytes[range.start as usize..range.end as usize]
    };
    let mut partial = blobs
        .begin_partial(id, outline.clone(), subtree(4))
        .unwrap();
    partial.store(1, subtree(1)).unwrap();
    assert_eq!(partial.next_missing(16), Some(0..1));
    let wrong = partial.store(2, subtree(3));
    assert!(matches!(wrong, Err(BlobError::Unverified { index: 2, .. })));
    drop(partial);
    drop(blobs);

    let blobs = DiskBlobs::open(folder.path().join("blobs")).unwrap();
    assert!(!blobs.has(&id));
    let mut partial = blobs.resume_partial(id).unwrap().unwrap();
    assert_eq!(partial.missing(), 3);
    partial.store(0, subtree(0)).unwrap();
    assert_eq!(partial.next_missing(1), Some(2..3));
    assert_eq!(partial.next_missing(16), Some(2..4));
    partial.store(2, subtree(2)).unwrap();
    partial.store(3, subtree(3)).unwrap();
    assert_eq!(partial.next_missing(16), None);
    assert!(!blobs.has(&id));
    partial.finish().unwrap();
    assert_eq!(blobs.get(&id).unwrap(), bytes);
    assert!(blobs.resume_partial(id).unwrap().is_none());
}

#[test]
fn an_incomplete_download_cannot_be_finished() {
    let (_folder, blobs) = store();
    let bytes = blob(2 * MEBIBYTE);
    let outline = Outline::of(&bytes);
    let partial = blobs
        .begin_partial(outline.id(), outline.clone(), &bytes[MEBIBYTE..])
        .unwrap();
    let twice = blobs.resume_partial(outline.id());
    assert!(matches!(twice, Err(BlobError::InUse { .. })));
    let refused = partial.finish();
    assert!(matches!(
        refused,
        Err(BlobError::Incomplete { missing: 1, .. })
    ));
    assert!(!blobs.has(&outline.id()));
}

/// An outline with a false length merges to the right name; only the last subtree betrays it.
#[test]
fn a_download_does_not_begin_without_proof_of_its_length() {
    let (_folder, blobs) = store();
    let bytes = blob(2 * MEBIBYTE);
    let outline = Outline::of(&bytes);
    let refused = blobs.begin_partial(outline.id(), outline.clone(), &bytes[..MEBIBYTE]);
    assert!(matches!(refused, Err(BlobError::Unverified { .. })));
    assert!(blobs.resume_partial(outline.id()).unwrap().is_none());
}
