"""Size classes against what the library itself tells (tc_nallocx of every size from 0 to 300,000)."""

import numpy as np
import pytest

from sim.tcmalloc.sizeclasses import (
    MAX_SIZE,
    NUM_CLASSES,
    PAGE_SIZE,
    alignment_for_size,
    class_array,
    class_to_pages,
    class_to_size,
    num_move_size,
    num_objects_to_move,
    objects_per_span,
    tail_bytes,
)

# object bytes / pages of a span / batch / objects of a span, by class from 1 on
LIBRARY = """
    8/1/32/1024 16/1/32/512 32/1/32/256 48/1/32/170 64/1/32/128 80/1/32/102 96/1/32/85 112/1/32/73 128/1/32/64
    144/1/32/56 160/1/32/51 176/1/32/46 192/1/32/42 208/1/32/39 224/1/32/36 240/1/32/34 256/1/32/32 288/1/32/28
    320/1/32/25 352/1/32/23 384/1/32/21 416/1/32/19 448/1/32/18 480/1/32/17 512/1/32/16 576/1/32/14 640/1/32/12
    704/1/32/11 768/1/32/10 896/1/32/9 1024/1/32/8 1152/2/32/14 1280/2/32/12 1408/2/32/11 1536/2/32/10 1792/2/32/9
    2048/2/32/8 2304/2/28/7 2560/2/25/6 2816/3/23/8 3072/2/21/5 3328/3/19/7 4096/2/16/4 4608/3/14/5 5120/2/12/3
    6144/3/10/4 6656/5/9/6 8192/2/8/2 9216/5/7/4 10240/4/6/3 12288/3/5/2 13312/5/4/3 16384/2/4/1 20480/5/3/2
    24576/3/2/1 26624/7/2/2 32768/4/2/1 40960/5/2/1 49152/6/2/1 57344/7/2/1 65536/8/2/1 73728/9/2/1 81920/10/2/1
    90112/11/2/1 98304/12/2/1 106496/13/2/1 114688/14/2/1 122880/15/2/1 131072/16/2/1 139264/17/2/1 147456/18/2/1
    155648/19/2/1 163840/20/2/1 172032/21/2/1 180224/22/2/1 188416/23/2/1 196608/24/2/1 204800/25/2/1 212992/26/2/1
    221184/27/2/1 229376/28/2/1 237568/29/2/1 245760/30/2/1 253952/31/2/1 262144/32/2/1
"""


def test_the_rule_gives_the_classes_of_the_library():
    wanted = [tuple(map(int, row.split("/"))) for row in LIBRARY.split()]
    computed = zip(class_to_size, class_to_pages, num_objects_to_move, objects_per_span, strict=True)
    assert [tuple(map(int, row)) for row in computed][1:] == wanted
    assert NUM_CLASSES == len(wanted) + 1 == 86


def test_every_size_has_the_smallest_class_it_fits():
    sizes = np.arange(MAX_SIZE + 1)
    small = sizes <= 1024
    index = np.where(small, (sizes + 7) // 8, 120 + (sizes + 127) // 128)
    rounded = np.where(small, np.maximum(-(-sizes // 8) * 8, 8), -(-sizes // 128) * 128)
    # sizes above 1024 round to 128 first: all classes there are multiples of 128
    assert (class_to_size[class_array[index]] == class_to_size[np.searchsorted(class_to_size, rounded)]).all()
    assert (class_to_size[class_array[index]] >= sizes).all()


def test_spans_lose_an_eighth_at_most():
    assert (tail_bytes * 8 <= class_to_pages * PAGE_SIZE).all()
    assert (objects_per_span[1:] >= num_objects_to_move[1:] // 4).all()


@pytest.mark.parametrize(("size", "step"), [(8, 8), (16, 16), (112, 16), (128, 16), (1024, 128), (65536, 8192), (262144, 8192)])
def test_candidates_advance_by_an_eighth_up_to_a_page(size, step):
    assert alignment_for_size(size) == step


@pytest.mark.parametrize(("size", "batch"), [(8, 32), (2048, 32), (2304, 28), (16384, 4), (65536, 2), (262144, 2)])
def test_a_batch_is_64_kib_between_2_and_32_objects(size, batch):
    assert num_move_size(size) == batch
