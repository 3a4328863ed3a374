#!/usr/bin/env python3
"""perf script -i PERF -F comm,ip,sym --no-inline | benches/profile/flame.py COMM SVG TITLE [NS_PER_BYTE]

Draws the stacks of one thread as a flame graph, and prints which part of its time goes where, by the innermost frame that
names a reason. With nanoseconds per byte each part is told in picoseconds per byte too.
"""
import html
import re
import sys

WIDTH, ROW, LEAST = 1200, 17, 0.25
REASONS = [  # The first that a stack holds, from its innermost frame outwards.
    ("AES-GCM", r"aes_gcm|gcm_ghash|CRYPTO_gcm128|EVP_AEAD"),
    ("CRC-32C", r"crc32c|crc_fast|::crc"),
    ("receive: kernel", r"tcp_recvmsg|__sys_recv|sys_recv|sock_recvmsg"),
    ("send: kernel", r"tcp_sendmsg|sock_sendmsg|sys_send|sys_writev|vfs_writev|sock_write_iter"),
    ("epoll: kernel", r"epoll|eventfd|ep_poll"),
    ("memory: kernel", r"asm_exc_page_fault|handle_mm_fault|madvise|munmap|mmap"),
    ("other kernel", r"^entry_SYSCALL|^do_syscall|^asm_|^schedule|finish_task"),
    ("memcpy, memset in user space", r"^__mem(move|cpy|set)"),
    ("rustls beside the cipher", r"rustls|sealing|Sealer"),
    ("connections", r"strait::connection"),
    ("engine and wire", r"strait::(engine|wire|lane)"),
    ("tokio, allocator, libc", r"."),
]


def read(lines, comm):
    """Stacks, outermost frame first, with their counts."""
    stacks, frames, wanted = {}, [], False
    for line in list(lines) + [""]:
        if not line.strip():
            if wanted and frames:
                stack = tuple(reversed(frames))
                stacks[stack] = stacks.get(stack, 0) + 1
            frames, wanted = [], False
        elif not line.startswith((" ", "\t")):
            wanted = line.split()[0] == comm
        else:
            name = line.strip().split(" ", 1)[-1]
            frames.append(re.sub(r"aws_lc_\d+_\d+_\d+_|\{\{vtable.shim\}\}|\+0x[0-9a-f]+$", "", name))
    return stacks


def reason(stack):
    for name, pattern in REASONS[:2]:
        if any(re.search(pattern, frame) for frame in stack[-4:]):
            return name
    for name, pattern in REASONS[2:7]:
        if any(re.search(pattern, frame) for frame in stack):
            return name
    if re.search(REASONS[7][1], stack[-1]):
        return REASONS[7][0]
    for frame in reversed(stack):
        for name, pattern in REASONS[8:11]:
            if re.search(pattern, frame):
                return name
    return REASONS[-1][0]


def draw(stacks, total, title):
    boxes, depth_max = [], 0

    def put(stacks, depth, left):
        nonlocal depth_max
        groups = {}
        for stack, count in stacks:
            if len(stack) > depth:
                groups.setdefault(stack[depth], []).append((stack, count))
        for name, group in sorted(groups.items()):
            count = sum(count for _, count in group)
            width = WIDTH * count / total
            if width >= LEAST * 4:
                boxes.append((left, depth, width, name, count))
                depth_max = max(depth_max, depth)
                put(group, depth + 1, left)
            left += width

    put(list(stacks.items()), 0, 0)
    height = (depth_max + 3) * ROW
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">',
        f'<text x="4" y="13">{html.escape(title)}</text>',
    ]
    for left, depth, width, name, count in boxes:
        top = height - (depth + 1) * ROW
        hue = 200 if re.search(r"^(tcp|__tcp|ip_|__ip|sock|sk|__x64|do_|entry|asm_|_raw|net|__n|copy_|rep_|__alloc)", name) else 30
        hue = (hue + sum(map(ord, name)) % 25) % 360
        short = html.escape(name[: int(width / 6.8)]) if width > 24 else ""
        tip = f"{html.escape(name)}: {100 * count / total:.1f} %"
        out.append(
            f'<g><title>{tip}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 1}" '
            f'fill="hsl({hue},70%,72%)"/><text x="{left + 2:.1f}" y="{top + 12}">{short}</text></g>'
        )
    return "\n".join(out + ["</svg>\n"])


def main():
    comm, svg, title = sys.argv[1:4]
    per_byte = float(sys.argv[4]) if len(sys.argv) > 4 else None
    stacks = read(sys.stdin, comm)
    total = sum(stacks.values())
    with open(svg, "w") as out:
        out.write(draw(stacks, total, title))
    parts = {}
    for stack, count in stacks.items():
        name = reason(stack)
        parts[name] = parts.get(name, 0) + count
    print(f"{total} samples")
    for name, count in sorted(parts.items(), key=lambda part: -part[1]):
        told = f" {1000 * per_byte * count / total:7.1f} ps" if per_byte else ""
        print(f"{100 * count / total:5.1f} %{told}  {name}")


main()
