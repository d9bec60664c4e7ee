//! How a file is mended that this process may not read: one sentence for all files.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Maximum size of /etc/passwd and /etc/group; names in larger ones are shown as numbers.
const MAX_ACCOUNTS: u64 = 4 * 1024 * 1024;

/// The ids that systemd gives to users of services with `DynamicUser=`, anew at every start.
const DYNAMIC_USERS: std::ops::RangeInclusive<u32> = 61184..=65519;

/// The user and the groups that a process acts as.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Credentials {
    uid: u32,
    gid: u32,
    /// All groups, the first included.
    groups: Vec<u32>,
}

impl Credentials {
    fn of_this_process() -> Credentials {
        let gid = rustix::process::getegid().as_raw();
        let others = rustix::process::getgroups().unwrap_or_default();
        let mut groups = vec![gid];
        for group in others.into_iter().map(rustix::process::Gid::as_raw) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        Credentials { uid: rustix::process::geteuid().as_raw(), gid, groups }
    }
}

/// The owner, the group and the mode of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ownership {
    uid: u32,
    gid: u32,
    /// The nine bits of permissions.
    mode: u32,
}

impl Ownership {
    fn new(metadata: &Metadata) -> Ownership {
        let mode = metadata.permissions().mode() & 0o777;
        Ownership { uid: metadata.uid(), gid: metadata.gid(), mode }
    }
}

/// The permission that is missing: to read a file, or to search a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    Read,
    Search,
}

impl Permission {
    fn letter(self) -> char {
        match self {
            Permission::Read => 'r',
            Permission::Search => 'x',
        }
    }

    /// The bit among the three of others.
    fn bit(self) -> u32 {
        match self {
            Permission::Read => 0o4,
            Permission::Search => 0o1,
        }
    }
}

/// The change that gives the permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The owner lacks it.
    Owner,
    /// The group, which the process belongs to, lacks it.
    Group,
    /// The process is neither the owner nor in the group: the file takes this group.
    OtherGroup(u32),
    /// The permissions allow it already.
    None,
}

/// Decides as the kernel does: the owner has the first three bits, else a member of the group the next three, else all
/// others the last three.
fn change(who: &Credentials, file: Ownership, permission: Permission) -> Change {
    let has = |shift: u32| file.mode & (permission.bit() << shift) != 0;
    if who.uid == file.uid {
        if has(6) { Change::None } else { Change::Owner }
    } else if who.groups.contains(&file.gid) {
        if has(3) { Change::None } else { Change::Group }
    } else if has(0) {
        Change::None
    } else {
        Change::OtherGroup(who.gid)
    }
}

/// Returns the name of an id by /etc/passwd or /etc/group, else its number.
fn name(accounts: &str, id: u32) -> String {
    let named = accounts.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(id)).then_some(name)
    });
    named.map_or_else(|| id.to_string(), str::to_owned)
}

/// Returns the id of a name by /etc/group.
fn id(accounts: &str, wanted: &str) -> Option<u32> {
    accounts.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next()? == wanted).then(|| parts.nth(1)?.parse().ok())?
    })
}

fn accounts(path: &str) -> String {
    let is_small = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() <= MAX_ACCOUNTS);
    is_small.then(|| std::fs::read_to_string(path).ok()).flatten().unwrap_or_default()
}

/// Returns the number of a group that is given by its name in /etc/group or by its number.
pub(crate) fn group(named: &str) -> Option<u32> {
    id(&accounts("/etc/group"), named).or_else(|| named.parse().ok())
}

/// Writes the sentence. `path` is the file or folder that lacks the permission.
fn sentence(
    who: &Credentials,
    (path, file): (&Path, Ownership),
    permission: Permission,
    (users, groups): (&str, &str),
) -> String {
    let shown = path.display();
    let group = |id: u32| name(groups, id);
    let plural = if who.groups.len() == 1 { "" } else { "s" };
    let all = who.groups.iter().map(|id| group(*id)).collect::<Vec<_>>().join(", ");
    let letter = permission.letter();
    let mend = match change(who, file, permission) {
        Change::Owner => format!("run: chmod u+{letter} {shown}"),
        Change::Group => format!("run: chmod g+{letter} {shown}"),
        Change::OtherGroup(_) if DYNAMIC_USERS.contains(&who.uid) => {
            "systemd makes this user anew at every start (DynamicUser=): pass the file by LoadCredential= in the unit"
                .to_owned()
        }
        Change::OtherGroup(id) if permission == Permission::Read => {
            format!("run as root: chgrp {} {shown} && chmod 640 {shown}", group(id))
        }
        Change::OtherGroup(id) => {
            format!("run as root: chgrp {} {shown} && chmod g+{letter} {shown}; or move the file", group(id))
        }
        Change::None => "these permissions allow it, so a sandbox or security module (systemd, AppArmor, SELinux) \
            denies it: allow it there"
            .to_owned(),
    };
    format!(
        "Pillion runs as user {}, group{plural} {all}; {shown} belongs to user {}, group {}, and has mode {:04o}; {mend}",
        name(users, who.uid),
        name(users, file.uid),
        group(file.gid),
        file.mode,
    )
}

/// Returns how a file is mended that could not be opened: `None` where permissions are not the reason.
pub(crate) fn remedy(path: &Path, error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::IsADirectory => return Some("it is a folder; name a file".to_owned()),
        io::ErrorKind::PermissionDenied => {}
        _ => return None,
    }
    let who = Credentials::of_this_process();
    let (users, groups) = (accounts("/etc/passwd"), accounts("/etc/group"));
    if let Ok(metadata) = std::fs::metadata(path) {
        let file = (path, Ownership::new(&metadata));
        return Some(sentence(&who, file, Permission::Read, (&users, &groups)));
    }
    // A folder above the file, or above the target of a symbolic link, may not be searched.
    let target = std::fs::read_link(path);
    let path =
        target.map_or(path.to_path_buf(), |target| path.parent().unwrap_or(Path::new("")).join(target));
    let path = std::path::absolute(&path).unwrap_or(path);
    path.ancestors().skip(1).find_map(|folder| {
        let metadata = std::fs::metadata(folder).ok()?;
        Some(sentence(&who, (folder, Ownership::new(&metadata)), Permission::Search, (&users, &groups)))
    })
}

/// Returns `; ` and how the file is mended, for the end of a message; else nothing.
pub(crate) fn after(path: &Path, error: &io::Error) -> String {
    remedy(path, error).map_or_else(String::new, |remedy| format!("; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_permission_is_given_as_the_kernel_takes_it() {
        let who = Credentials { uid: 1000, gid: 1000, groups: vec![1000, 27] };
        let cases = [
            ((1000, 0, 0o040), Permission::Read, Change::Owner),
            ((1000, 0, 0o400), Permission::Read, Change::None),
            // The owner's bits alone count for the owner.
            ((1000, 1000, 0o077), Permission::Read, Change::Owner),
            ((0, 27, 0o600), Permission::Read, Change::Group),
            ((0, 27, 0o604), Permission::Read, Change::Group),
            ((0, 27, 0o640), Permission::Read, Change::None),
            ((0, 0, 0o640), Permission::Read, Change::OtherGroup(1000)),
            ((0, 0, 0o644), Permission::Read, Change::None),
            ((0, 0, 0o700), Permission::Search, Change::OtherGroup(1000)),
            ((0, 0, 0o744), Permission::Search, Change::OtherGroup(1000)),
            ((0, 27, 0o740), Permission::Search, Change::Group),
            ((0, 0, 0o711), Permission::Search, Change::None),
        ];
        for ((uid, gid, mode), permission, expected) in cases {
            let file = Ownership { uid, gid, mode };
            assert_eq!(change(&who, file, permission), expected, "{file:?} {permission:?}");
        }
    }

    #[test]
    fn ids_have_names_where_the_system_knows_them() {
        let groups = "root:x:0:\n# a note\nbroken\npillion:x:990:ann,bob\n";
        assert_eq!((name(groups, 990), name(groups, 7)), ("pillion".to_owned(), "7".to_owned()));
        assert_eq!((id(groups, "pillion"), id(groups, "broken"), id(groups, "x")), (Some(990), None, None));
    }

    #[test]
    fn sentence_names_the_process_the_file_and_the_command() {
        let who = Credentials { uid: 990, gid: 990, groups: vec![990] };
        let file = (Path::new("/etc/keys.toml"), Ownership { uid: 0, gid: 0, mode: 0o600 });
        let said = sentence(&who, file, Permission::Read, ("root:x:0:\n", "root:x:0:\npillion:x:990:\n"));
        assert_eq!(
            said,
            "Pillion runs as user 990, group pillion; /etc/keys.toml belongs to user root, group root, and has mode \
             0600; run as root: chgrp pillion /etc/keys.toml && chmod 640 /etc/keys.toml"
        );
    }
}
