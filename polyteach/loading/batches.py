"""Where these names were before they moved to the modules beside this one."""

from polyteach.loading.combine import COMBINE as COMBINE
from polyteach.loading.objectives import by_people as by_people
from polyteach.loading.plan import LOOK as LOOK
from polyteach.loading.plan import Place as Place
from polyteach.loading.plan import Plan as Plan
from polyteach.loading.plan import all_images as all_images
from polyteach.loading.plan import digest as digest
from polyteach.loading.plan import idle as idle
from polyteach.loading.plan import idle_sets as idle_sets
from polyteach.loading.plan import members as members
from polyteach.loading.plan import no_split as no_split
from polyteach.loading.plan import plan as plan
from polyteach.loading.reader import AHEAD as AHEAD
from polyteach.loading.reader import ATTEMPTS as ATTEMPTS
from polyteach.loading.reader import CACHE as CACHE
from polyteach.loading.reader import DECODED as DECODED
from polyteach.loading.reader import Reject as Reject
from polyteach.loading.reader import Sample as Sample
from polyteach.loading.reader import Samples as Samples
from polyteach.loading.reader import unlearnable as unlearnable
from polyteach.loading.sampler import WINDOW as WINDOW
from polyteach.loading.sampler import Sampler as Sampler
from polyteach.loading.transport import ALIGNED as ALIGNED
from polyteach.loading.transport import NO_ROOM as NO_ROOM
from polyteach.loading.transport import PATIENCE as PATIENCE
from polyteach.loading.transport import REJECTS as REJECTS
from polyteach.loading.transport import SHARED as SHARED
from polyteach.loading.transport import Batch as Batch
from polyteach.loading.transport import batches as batches
from polyteach.loading.transport import explained as explained
from polyteach.loading.transport import noted as noted
from polyteach.loading.views import PHOTOMETRIC as PHOTOMETRIC
from polyteach.loading.views import Augment as Augment
from polyteach.loading.views import photometric as photometric

Order = Sampler
